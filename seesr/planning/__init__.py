"""Memory plans: what a job needs in memory, the plan that fits, and the fallback when memory runs out."""
