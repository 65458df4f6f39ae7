"""The bundle on disk: manifest, golden data, atomic writing."""
