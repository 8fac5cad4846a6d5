"""Write tests/planning/golden/ anew, after a rule was changed on purpose: a quarter of an hour of a processor.

`python tests/planning/regenerate_golden_plans.py`; look at the difference before you commit it.
"""

import logging

from published_fingerprints import (
    BUDGETED,
    BUDGETS_GB,
    GOLDEN,
    PUBLISHED,
    TIMED,
    TIMES_S,
    decisions,
    golden_configurations,
    make_fingerprint,
    plans_for,
    plans_for_cpus,
)

from seg25d.core.files import write_json
from seg25d.planning.planner import plan_dataset

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, published in PUBLISHED.items():
        plans = plan_dataset(*make_fingerprint(published), configurations=golden_configurations(published))
        write_json(GOLDEN / f"{name}.json", decisions(plans))
        logging.info("%s", GOLDEN / f"{name}.json")
    for name in BUDGETED:
        write_json(GOLDEN / "budgets" / f"{name}.json", {str(budget): plans_for(name, budget) for budget in BUDGETS_GB})
        logging.info("%s", GOLDEN / "budgets" / f"{name}.json")
    for name in TIMED:
        plans_by_time = {str(seconds): plans_for_cpus(name, seconds) for seconds in TIMES_S}
        write_json(GOLDEN / "time_budgets" / f"{name}.json", plans_by_time)
        logging.info("%s", GOLDEN / "time_budgets" / f"{name}.json")
