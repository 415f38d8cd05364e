from .find import find_groups as find_groups
from .group import Group as Group
