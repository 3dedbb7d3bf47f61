"""Whether a base station hears the user: a byte of side information, 1 if it does and 0 if it does not."""

HEARD, UNHEARD = b"\1", b"\0"
