"""Results that evaluators wrote: read again, shown on a page, compared in pairs."""
