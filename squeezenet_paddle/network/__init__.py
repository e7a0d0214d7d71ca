"""What SqueezeNet is, and how Paddle and numpy compute it."""
