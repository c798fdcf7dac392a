"""One module an entry point: read, compute, judge, record, and return what is printed."""
