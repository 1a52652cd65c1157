"""One process of a sweep, from the start of Ray to the summary; how it stops and resumes."""
