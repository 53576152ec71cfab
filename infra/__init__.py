"""The servers a federation needs, run as child processes on one machine."""
