"""Where arrays lie on the devices."""
