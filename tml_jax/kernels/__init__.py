"""The forms of attention and of experts, each with the device it is for."""
