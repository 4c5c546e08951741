#!/usr/bin/perl
# Reads rows by a regular expression and, beside, by their columns; both must say the same.
use strict;
use warnings;

my %bytes;
open(my $stat, '-|', 'vznetstat', '-c', '1', '-c', '2') or die "vznetstat: $!";
while (my $line = <$stat>) {
    chomp $line;
    next if $line =~ /^(?:UUID|CTID)\s/;
    $line =~ /^(\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s+(\d+)\s+(\d+) \s+(\d+)\s+(\d+) \s+(\d+)$/
        or die "no row: $line";
    my @fields = ($1, $2, $3, $4, $5, $6);
    my @columns = map { s/^ +| +$//gr } unpack('A36 x A2 x A20 x x A10 x A20 x x A10', $line);
    "@fields" eq "@columns" or die "fields @fields, columns @columns";
    $bytes{"$fields[0]/$fields[1]"} = "$fields[2] $fields[4]";
}
close($stat) or die "vznetstat failed: $?";
print "$_ $bytes{$_}\n" for sort keys %bytes;
