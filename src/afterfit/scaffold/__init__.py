"""What `init` makes of a raw table: how it is written, what gives the target away, and the settings file."""
