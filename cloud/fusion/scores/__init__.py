"""Score fusion: rules that combine the ε̂ of several base stations, the sampler, and the exact product of mixtures.

Notation, in all files: K base stations, N states, D dimensions (2 or 3, normalised); x = a p + s ε a noised position at
a `Level` with ε ~ N(0, I) (`fronthaul.payload.noise_levels`); ρ = s / a. Base station k sends ε̂_k(x), an estimate of
E[ε | x, h_k], which is its score up to a factor: ∇log p_t(x | h_k) = −ε̂_k / s (DiffLoc Eq. 10, 11).
"""
