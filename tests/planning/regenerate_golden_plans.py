"""Write tests/planning/golden/*.json anew, after a rule was changed on purpose.

`python tests/planning/regenerate_golden_plans.py`; look at the difference before you commit it.
"""

import logging

from published_fingerprints import GOLDEN, PUBLISHED, decisions, golden_configurations, make_fingerprint

from seg25d.core.files import write_json
from seg25d.planning.planner import plan_dataset

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, published in PUBLISHED.items():
        plans = plan_dataset(*make_fingerprint(published), configurations=golden_configurations(published))
        write_json(GOLDEN / f"{name}.json", decisions(plans))
        logging.info("%s", GOLDEN / f"{name}.json")
