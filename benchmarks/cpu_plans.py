r"""What the bound on an update's time is worth on CPUs: a configuration as planned for this machine, and without bound.

    seg25d plan_and_preprocess -d 27 -c 3d stack --cpu-gflops auto
    seg25d plan_and_preprocess -d 27 -c 3d stack --cpu-gflops 0 --plans-name unbounded
    OMP_NUM_THREADS=1 python benchmarks/cpu_plans.py --dataset 27 --configuration 3d --time-budget 5min \
        --device cpu --num-processes 0 --output benchmarks/results/cpu_plans_27_3d.json

Both are trained for the same time with three seeds, and scored on the whole validation cases of the first fold.
"""

from contest import Contender, compete, make_parser
from result_tables import OVER_SEEDS, Table, columns

from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.runs.names import find_configuration

BOUNDED, UNBOUNDED = "bounded", "not bounded"
TABLE = Table(
    "cpu_plans",
    "Plans for CPUs: updates of bounded time, and of any",
    {
        "plan": lambda row: row["name"],
        **columns("Dice", "HD95 mm", "updates", "training", "memory", "s/case"),
    },
    (OVER_SEEDS,),
    references=(UNBOUNDED,),
)


def main() -> None:
    """Train both plans with all seeds and write the table."""
    parser = make_parser(__doc__ or "", "27")
    parser.add_argument("--configuration", default="3d")
    parser.add_argument("--unbounded", default="unbounded", help="name of the plans without a bound")
    options = parser.parse_args()
    workspace = Workspace.resolve(options.workspace)
    folder = workspace.preprocessed_dataset(workspace.dataset_name(options.dataset))
    bounded, unbounded = (
        find_configuration(read_record(path, Plans), options.configuration)[1]
        for path in (folder.plans(), folder.plans(options.unbounded))
    )
    if bounded.decisions == unbounded.decisions:
        raise SystemExit(f"error: both plans of {options.configuration} are the same: there is nothing to compare")

    def replaced(plan: ConfigurationPlan) -> ConfigurationPlan:
        del plan
        return unbounded

    name = f"{TABLE.name}_{options.configuration}"
    rows = [
        Contender(BOUNDED, options.configuration),
        Contender(UNBOUNDED, options.configuration, replaced),
    ]
    table = Table(name, f"{TABLE.title}: {options.configuration}", TABLE.columns, TABLE.notes, TABLE.references)
    compete(rows, table, options)


if __name__ == "__main__":
    main()
