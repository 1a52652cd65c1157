"""The report of a sweep: one HTML file with all figures, and the figures as pictures.

Read `write` first: it names the sections in their order. Each is a module that computes one sentence and its
figures from `sweep_data.SweepData`. Nothing is trained or evaluated again.
"""
