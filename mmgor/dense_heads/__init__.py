"""Dense heads of any mmdet family, read in one layout."""
