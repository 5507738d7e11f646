# A strict application on a mirror's NBD socket.
#
#   records.pl write SOCKET DIR     numbered records, each durable before the next begins, until
#                                   DIR/stop appears; DIR/acked gets "number time" per record,
#                                   DIR/failed "number errno" at the first error
#   records.pl check FILE DIR       every slot of FILE (a socket, too) holds a whole record that is
#                                   not older than the last one acknowledged there
#   records.pl fill SOCKET MB1 MB2  random bytes from MB1 to MB2, then a flush
#   records.pl burst SOCKET COUNT   COUNT writes of 64 KiB at once; ends when all are answered
#   records.pl read SOCKET MB1 MB2  ends with an error unless all of it can be read
#   records.pl try SOCKET           one write with FUA; ends with its errno
use strict;
use warnings;
use IO::Socket::UNIX;
use Time::HiRes qw(time sleep);

use constant { SLOTS => 128, STRIDE => 384 * 1024, BLOCK => 4096, MIB => 1 << 20 };
use constant { READ => 0, WRITE => 1, FLUSH => 3, FUA => 1 };

my ($sock, $handle) = (undef, 0);

sub record { my $n = shift; return pack('Q> N*', $n, ((($n * 2654435761) & 0xffffffff)) x 1022) }

sub take {
    my $len = shift;
    my $data = '';
    while (length $data < $len) {
        my $got = sysread($sock, $data, $len - length $data, length $data);
        return undef unless $got;
    }
    return $data;
}

sub give {
    my $data = shift;
    my $at = 0;
    while ($at < length $data) {
        my $put = syswrite($sock, $data, length($data) - $at, $at) or return 0;
        $at += $put;
    }
    return 1;
}

sub connect_to {
    my $path = shift;
    my $end = time + 5;
    until ($sock = IO::Socket::UNIX->new(Peer => $path)) {
        die "no connection to $path: $!\n" if time > $end;
        sleep 0.05;
    }
    take(18) or die "no greeting\n";
    give(pack('N a8 N N N a3 n', 3, 'IHAVEOPT', 7, 9, 3, 'md1', 0));
    while (1) {
        my $head = take(20) or die "the export is not served\n";
        my ($type, $len) = (unpack('Q> N N N', $head))[2, 3];
        take($len) if $len;
        return if $type == 1;
        die sprintf("refused: %x\n", $type) if $type & 0x80000000;
    }
}

sub ask {
    my ($type, $flags, $offset, $len, $data) = @_;
    return give(pack('N n n Q> Q> N', 0x25609513, $flags, $type, ++$handle, $offset, $len) . ($data // ''));
}

# The errno of the next answer; 32 (broken pipe) when the server has gone.
sub answer {
    my $reply = take(16) // return 32;
    return (unpack 'N N Q>', $reply)[1];
}

sub request { return ask(@_) ? answer() : 32 }

sub slot { return ($_[0] % SLOTS) * STRIDE }

sub last_number {
    my $last = 0;
    for my $file ("$_[0]/acked", "$_[0]/failed") {
        open my $in, '<', $file or next;
        while (<$in>) { my ($n) = split; $last = $n if $n > $last }
    }
    return $last;
}

sub write_records {
    my ($path, $dir) = @_;
    $SIG{PIPE} = 'IGNORE';
    my $n = last_number($dir);
    connect_to($path);
    open my $acked, '>>', "$dir/acked" or die;
    $acked->autoflush(1);
    until (-e "$dir/stop") {
        $n++;
        # Durable in either of the two ways.
        my $error = request(WRITE, $n % 2 ? FUA : 0, slot($n), BLOCK, record($n));
        $error ||= request(FLUSH, 0, 0, 0) unless $n % 2;
        if ($error) {
            open my $failed, '>>', "$dir/failed" or die;
            print $failed "$n $error\n";
            exit 1;
        }
        printf $acked "%d %.3f\n", $n, time;
    }
}

sub reader {
    my $path = shift;
    if (-S $path) {
        connect_to($path);
        return sub {
            my $error = request(READ, 0, shift, BLOCK);
            die "read error $error\n" if $error;
            return take(BLOCK);
        };
    }
    open my $file, '<:raw', $path or die "$path: $!\n";
    return sub { sysseek $file, shift, 0; sysread $file, my $data, BLOCK; return $data };
}

sub check {
    my ($path, $dir) = @_;
    my ($read, $count, $bad) = (reader($path), 0, 0);
    my %newest;
    open my $in, '<', "$dir/acked" or die;
    while (<$in>) { my ($n) = split; $newest{slot($n)} = $n; $count++ }
    for my $offset (sort { $a <=> $b } keys %newest) {
        my $data = $read->($offset);
        my $n = unpack 'Q>', $data;
        next if $data eq record($n) && slot($n) == $offset && $n >= $newest{$offset};
        print STDERR "at $offset: record $n, acknowledged: $newest{$offset}",
            $data eq record($n) ? "\n" : ", and it is torn\n";
        $bad++;
    }
    print STDERR "$count records acknowledged, ", scalar(keys %newest), " slots, $bad wrong\n";
    exit($bad ? 1 : 0);
}

sub fill {
    my ($path, $from, $to) = @_;
    connect_to($path);
    open my $random, '<:raw', '/dev/urandom' or die;
    for my $mib ($from .. $to - 1) {
        sysread $random, my $data, MIB;
        my $error = request(WRITE, 0, $mib * MIB, MIB, $data);
        die "write error $error\n" if $error;
    }
    my $error = request(FLUSH, 0, 0, 0);
    die "flush error $error\n" if $error;
}

sub read_all {
    my ($path, $from, $to) = @_;
    connect_to($path);
    for my $mib ($from .. $to - 1) {
        my $error = request(READ, 0, $mib * MIB, MIB);
        die "read error $error at $mib MiB\n" if $error;
        take(MIB) // die "the server has gone\n";
    }
}

sub burst {
    my ($path, $count) = @_;
    connect_to($path);
    my $piece = record(1) x 16;
    my $bad = 0;
    # Sent by one process and answered to another: a client that takes no answers while it sends
    # stops the server as soon as the socket is full of them.
    my $sender = fork() // die "fork: $!\n";
    if (!$sender) {
        ask(WRITE, FUA, $_ * 65536, 65536, $piece) || exit 1 for 0 .. $count - 1;
        exit 0;
    }
    for (1 .. $count) { $bad++ if answer() }
    waitpid $sender, 0;
    die "the server has gone\n" if $?;
    die "$bad writes failed\n" if $bad;
}

sub try { connect_to($_[0]); exit request(WRITE, FUA, 63 * MIB, BLOCK, record(0)) }

my $what = shift // '';
my %do = (write => \&write_records, check => \&check, fill => \&fill, read => \&read_all,
    burst => \&burst, try => \&try);
($do{$what} // die "what?\n")->(@ARGV);
