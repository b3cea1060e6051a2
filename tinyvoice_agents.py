"""The folder `agents` under the name by which an installed tinyvoice has it.

As `agents` it would take the place of OpenAI's Agents SDK, whose import name that is, in every
environment that has both. A wheel holds the folder as the package `tinyvoice_agents` and leaves
this file out; in a checkout this file is that package.
"""

from pathlib import Path

__path__ = [str(Path(__file__).with_name("agents"))]
