"""Game-Time: its folders, its scores without a judge, and a suite of both."""
