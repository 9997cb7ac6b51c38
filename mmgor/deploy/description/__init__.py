"""The metadata inside exported files: made, read and checked."""
