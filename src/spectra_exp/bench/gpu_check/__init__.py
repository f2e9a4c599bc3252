"""What only a GPU shows, in one command of stages that write their findings as they go."""
