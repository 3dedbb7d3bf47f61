"""Training and evaluation of VIn-Loc and of what it is compared with."""
