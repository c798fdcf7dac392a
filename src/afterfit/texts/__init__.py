"""Text from outside: the encoding of files that people write, and secrets taken out of what is said and stored."""
