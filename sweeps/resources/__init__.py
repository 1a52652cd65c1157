"""What trials run on: this machine or the nodes of a cluster, and what a trial costs there."""
