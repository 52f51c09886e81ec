"""Device profiles: what a model's bytes mean, as data. `schema` reads them strictly, `match` finds the one for a device, `status` applies them."""
