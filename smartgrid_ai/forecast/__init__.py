"""Load forecasts: naive and tree baselines, four experts and their mixture."""
