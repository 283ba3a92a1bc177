#!/usr/bin/env bash
# A SLURM of one node on this machine, for `make cluster-test`. Debian; asks for root. It keeps no accounts, so that there
# is no sacct: what a sweep needs to know of its jobs must come from squeue and scontrol.
#
#   cluster.sh start DIRECTORY    install what is missing, start the daemons, and wait until they answer
#   cluster.sh stop DIRECTORY     stop them
#
# slurm.conf, states and logs lie in DIRECTORY, where SLURM_CONF=DIRECTORY/slurm.conf finds the cluster.
set -euo pipefail
what=${1:?start or stop} directory=$(realpath -m "${2:?a directory}")
export SLURM_CONF=$directory/slurm.conf PATH=$PATH:/usr/sbin

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --preserve-env=SLURM_CONF "$@"; fi; }

end() { # the daemon whose process id stands in a file
  if as_root test -s "$1"; then as_root kill "$(as_root cat "$1")" || true; fi
}

if [ "$what" = stop ]; then
  end "$directory/slurmd.pid"
  end "$directory/slurmctld.pid"
  exit
fi

if [ -e "$SLURM_CONF" ] && sinfo --noheader >"$directory/sinfo" 2>&1 && grep -q idle "$directory/sinfo"; then exit; fi
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  as_root apt-get install --yes --no-install-recommends slurm-wlm munge
fi
mkdir -p "$directory/state" "$directory/spool"
memory=$(awk '/^MemTotal/ {megabytes = int($2 / 1024 * 0.9); print (megabytes < 8000 ? megabytes : 8000)}' /proc/meminfo)
cat >"$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# Seconds that a job that was put back waits before it starts again; 120 where nothing is said.
AuthInfo=cred_expire=5
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=10
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
if ! munge --no-input >/dev/null 2>&1; then
  as_root install -d -o munge -g munge /run/munge /var/log/munge
  as_root runuser -u munge -- /usr/sbin/munged
fi
as_root "$(command -v slurmctld)" -f "$SLURM_CONF"
as_root "$(command -v slurmd)" -f "$SLURM_CONF"
for _ in $(seq 60); do
  if sinfo --noheader 2>/dev/null | grep -q idle; then exit; fi
  sleep 0.5
done
echo "cluster.sh: SLURM does not answer; read $directory/slurmctld.log and slurmd.log" >&2
exit 1
