"""One process of a sweep, from Ray's start to the last table; how it stops and resumes."""
