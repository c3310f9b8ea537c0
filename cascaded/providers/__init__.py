"""Those who answer: one file each, none of which knows another."""
