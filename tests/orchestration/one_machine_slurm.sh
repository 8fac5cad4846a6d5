#!/bin/sh
# A SLURM of one machine, for the tests of `seg25d run --on slurm` (tests/orchestration/test_real_slurm.py).
#
#   apt-get install -y --no-install-recommends slurm-wlm munge     # Debian 12: SLURM 22.05
#   tests/orchestration/one_machine_slurm.sh start FOLDER          # as root; no systemd needed
#   export SLURM_CONF=FOLDER/slurm.conf                            # for sbatch, squeue, scancel and the tests
#   pytest tests/orchestration/test_real_slurm.py
#   tests/orchestration/one_machine_slurm.sh stop FOLDER
#
# One node with two CPUs (they need not be there: SlurmdParameters=config_overrides), no accounting database, no
# cgroups, controller and jobs as root. It listens on this machine only. For tests, and for nothing else.
set -eu

folder=$(realpath -m "${2:?expected start FOLDER or stop FOLDER}")

start() {
    mkdir -p "$folder/spool" "$folder/state" "$folder/munge"
    chmod 700 "$folder/munge"
    [ -f "$folder/munge/key" ] || dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
    chmod 400 "$folder/munge/key"
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    cat > "$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
MinJobAge=30
KillWait=30
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
DefMemPerCPU=1000
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -c
    slurmd
    for _ in $(seq 30); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$folder/slurm.conf"
            return
        fi
        sleep 1
    done
    echo "no idle node after 30 s; $folder/slurmctld.log and $folder/slurmd.log say why" >&2
    exit 1
}

stop() {
    for file in slurmd.pid slurmctld.pid munge/pid; do
        [ ! -f "$folder/$file" ] || kill "$(cat "$folder/$file")" || true
    done
}

case "$1" in start | stop) "$1" ;; *) echo "expected start or stop, got $1" >&2; exit 2 ;; esac
