"""Where events come from that nobody posts: one folder per kind of source."""
