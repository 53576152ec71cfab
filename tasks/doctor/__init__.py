"""What a machine can find out about itself before it takes part: one check a function, one idea a file."""
