"""One subject each: precision, growth, real sizes, samplers; and the report of all."""
