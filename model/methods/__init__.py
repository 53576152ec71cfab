"""Published methods that ours is compared with, one idea per file, each with its paper's formula."""
