"""What spend was, will be, and should not have been: forecasts, spikes, advice. Pure."""
