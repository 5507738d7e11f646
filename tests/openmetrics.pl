# Strict about OpenMetrics 1.0.
#
#   openmetrics.pl fetch HOST PORT   GET /metrics: checks the answer's head, prints its body
#   openmetrics.pl check FILE        every line is what it must be; prints the samples
#   openmetrics.pl silent HOST PORT COUNT   holds so many connections that say nothing, until killed
use strict;
use warnings;
use IO::Socket::INET;

my ($what, @args) = @ARGV;
my $at = '';
sub wrong { die "openmetrics: $_[0]: $at\n" }

sub dial {
    my ($host, $port) = @_;
    return IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 5)
        || die "no connection to $host:$port: $!\n";
}

sub fetch {
    my $sock = dial(@_);
    print $sock "GET /metrics HTTP/1.1\r\nHost: $_[0]\r\nAccept: application/openmetrics-text\r\n\r\n";
    local $/;
    my $answer = <$sock>;
    my ($head, $body) = split /\r\n\r\n/, $answer, 2;
    my ($status, @lines) = split /\r\n/, $head;
    $at = $head;
    wrong('status') unless $status eq 'HTTP/1.1 200 OK';
    my %head = map { /^([^:]+): (.*)$/ ? (lc $1, $2) : wrong('header') } @lines;
    wrong('type') unless $head{'content-type'} eq 'application/openmetrics-text; version=1.0.0; charset=utf-8';
    wrong('length') unless $head{'content-length'} == length $body;
    print $body;
}

my $NAME = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $LABEL = qr/[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"/;
my $VALUE = qr/[0-9]+(?:\.[0-9]+)?/; # nothing here is negative, infinite or no number
my %SUFFIX = (
    counter => ['_total'], gauge => [''], stateset => [''], histogram => ['_bucket', '_count', '_sum'],
);

sub check {
    open my $in, '<', $_[0] or die "$_[0]: $!\n";
    my $text = do { local $/; <$in> };
    wrong('the end') unless $text =~ s/\n# EOF\n\z/\n/;
    my (%families, %series, $family, $type, %meta, %bucket, %set);
    for my $line (split /\n/, $text) {
        $at = $line;
        if ($line =~ /^# (TYPE|UNIT|HELP) ($NAME) (.+)$/) {
            my ($kind, $name, $rest) = ($1, $2, $3);
            if ($kind eq 'TYPE') {
                wrong('a family twice') if $families{$name}++;
                wrong('type') unless $SUFFIX{$rest};
                ($family, $type, %meta) = ($name, $rest);
            }
            wrong('metadata of another family') unless defined $family && $name eq $family;
            wrong('metadata twice, or after samples') if $meta{$kind}++ || $meta{samples};
            wrong('unit') if $kind eq 'UNIT' && $name !~ /_\Q$rest\E$/;
            next;
        }
        wrong('no sample') unless $line =~ /^($NAME)(?:\{($LABEL(?:,$LABEL)*)\})? ($VALUE)$/;
        my ($name, $labels, $value) = ($1, $2 // '', $3);
        my ($suffix) = grep { $name eq "$family$_" } @{ $SUFFIX{$type} };
        wrong('a sample outside its family') unless defined $suffix;
        $meta{samples} = 1;
        wrong('a sample twice') if $series{"$name\{$labels}"}++;
        my %labels = map { /^(.*?)="(.*)"$/ ? ($1, $2) : () } $labels =~ /$LABEL/g;
        wrong('a label twice') if keys %labels != (() = $labels =~ /$LABEL/g);
        if ($type eq 'histogram') {
            my $of = "$family of " . ($labels{mirror} // '');
            my $b = $bucket{$of} //= { le => -1, n => 0 };
            if ($suffix eq '_bucket') {
                my $le = $labels{le} eq '+Inf' ? 9**9**9 : $labels{le};
                wrong('buckets in order') unless $le > $b->{le} && $value >= $b->{n};
                @$b{qw(le n)} = ($le, $value);
            } elsif ($suffix eq '_count') {
                wrong('the last bucket is all') unless $b->{le} == 9**9**9 && $b->{n} == $value;
            }
        } elsif ($type eq 'stateset') {
            wrong('its own label') unless exists $labels{$family};
            wrong('0 or 1') unless $value =~ /^[01]$/;
            $set{"$family $labels{mirror} " . ($labels{server} // '')} += $value;
        }
        wrong('whole buckets') if $type eq 'histogram' && $suffix ne '_sum' && $value =~ /\./;
        print "$name\{$labels} $value\n";
    }
    for (keys %set) { $at = $_; wrong('one state') unless $set{$_} == 1 }
    $at = $_[0];
    wrong('there is nothing') unless %series;
}

sub silent {
    my ($host, $port, $count) = @_;
    my @all = map { dial($host, $port) } 1 .. $count;
    $| = 1;
    print "connected\n";
    sleep 60;
}

my %do = (fetch => \&fetch, check => \&check, silent => \&silent);
($do{ $what // '' } // die "usage\n")->(@args);
