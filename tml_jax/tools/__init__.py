"""The tools that come with the project, one file each."""
