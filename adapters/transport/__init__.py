"""The one way to a provider: an interface (`base`), a fast implementation (`raw`) and a plain one (`plain`)."""
