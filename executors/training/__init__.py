"""The learned cost model: trained (fit), written (export), judged on what it has not seen (evaluate)."""
