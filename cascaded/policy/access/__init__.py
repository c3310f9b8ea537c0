"""Who a call is for, and what it may do. Pure."""
