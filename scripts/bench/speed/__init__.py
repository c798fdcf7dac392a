"""How long it takes and how much memory it needs, beside peers or beside the floor, in one run."""
