# confine.pl UNIT CALLS COMMAND...: runs the command with the capabilities and system calls that the unit
# leaves it, as the service manager would. CALLS: numbers of the allowed system calls, one on a line.
# For x86-64. The rest of the restrictions follows from these or is not looked at.
use strict;
use warnings;

my ($unit, $calls, @command) = @ARGV;
my %number = (chown => 0, dac_override => 1, dac_read_search => 2, fowner => 3, fsetid => 4, kill => 5,
    setgid => 6, setuid => 7, net_bind_service => 10, net_admin => 12, ipc_lock => 14, sys_ptrace => 19,
    sys_admin => 21, sys_boot => 22, sys_resource => 24);
my ($PRCTL, $SECCOMP) = (157, 317);
my ($CAPBSET_DROP, $NO_NEW_PRIVS, $SET_MODE_FILTER) = (24, 38, 1);

open my $file, '<', $unit or die "$unit: $!";
my %keeps;
my $no_new = 0;
while (<$file>) {
    $no_new = 1 if /^NoNewPrivileges=yes$/;
    next unless s/^CapabilityBoundingSet=//;
    for my $name (map { lc } split) {
        $name =~ s/^cap_//;
        die "a capability without a number here: $name" unless exists $number{$name};
        $keeps{ $number{$name} } = 1;
    }
}
die "the unit limits nothing" unless %keeps && $no_new;
open my $allowed, '<', $calls or die "$calls: $!";
chomp(my @allowed = <$allowed>);

# BPF: another architecture fails; each call that is allowed returns "allow"; the end is EPERM.
my ($LOAD, $EQUAL, $RETURN) = (0x20, 0x15, 0x06);
my ($ALLOW, $EPERM) = (0x7fff0000, 0x00050001);
sub op { pack 'SCCL', @_ }
my $program = op($LOAD, 0, 0, 4) . op($EQUAL, 1, 0, 0xc000003e) . op($RETURN, 0, 0, $EPERM) . op($LOAD, 0, 0, 0);
$program .= op($EQUAL, 0, 1, $_) . op($RETURN, 0, 0, $ALLOW) for @allowed;
$program .= op($RETURN, 0, 0, $EPERM);

for my $capability (0 .. 40) {
    next if $keeps{$capability};
    syscall($PRCTL, $CAPBSET_DROP, $capability, 0, 0, 0) == 0 or die "dropping $capability: $!";
}
syscall($PRCTL, $NO_NEW_PRIVS, 1, 0, 0, 0) == 0 or die "no new privileges: $!";
my $filter = pack 'Sx6P', length($program) / 8, $program;
syscall($SECCOMP, $SET_MODE_FILTER, 0, $filter) == 0 or die "seccomp: $!";
exec @command or die "$command[0]: $!";
