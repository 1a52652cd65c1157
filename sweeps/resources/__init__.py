"""The machine or cluster that trials run on, and the cost of a trial there."""
