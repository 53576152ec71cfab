"""What a cardiologist asks of an evaluation: agreement of volumes with the reference, and who is served how well."""
