"""Metadata of image files: what the output keeps of the input's, and the settings that made the output."""

from seesr.images.metadata.reading import read_metadata as read_metadata
from seesr.images.metadata.reading import read_metadata_of_tiff as read_metadata_of_tiff
from seesr.images.metadata.settings import read_infotext as read_infotext
from seesr.images.metadata.settings import read_settings as read_settings
from seesr.images.metadata.settings import read_xmp_texts as read_xmp_texts
from seesr.images.metadata.values import Metadata as Metadata
from seesr.images.metadata.writing import metadata_arguments as metadata_arguments
