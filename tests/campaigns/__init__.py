"""Attack jigdofs at random, from a seed, and count what it gave away: programs, run by hand or short in CI.

    python -m tests.campaigns                       # all of them in full, and a table
    python -m tests.campaigns.servers --seed 7      # one of them; the same seed does the same things again

A campaign prints JSON and exits with 1 when a figure is not what is promised. It contacts loopback only, ends
only what it started, and leaves nothing mounted.
"""
