# Sidekiq: the worker and the clients that `run` measures.
# Written for Debian's 6.4.1. Its Ruby 3.1 has a first YJIT: 15 % faster and 260 MiB more, so it stays off.
require "json"
require "sidekiq"

$stdout.sync = true
Sidekiq.logger.level = Logger::ERROR
OLD = Sidekiq::VERSION.to_i < 7
# redis-rb 4.8 otherwise prints a warning for each enqueue.
Redis.sadd_returns_boolean = false if OLD
# Its own load test suggests hiredis, which is about 1.3 times as fast.
DRIVER = OLD ? { driver: :hiredis } : {}

def clock_us # the monotonic clock: one for all processes
  Process.clock_gettime(Process::CLOCK_MONOTONIC, :microsecond)
end

class Noop
  include Sidekiq::Job

  ARGS = [0, 0, "x" * 86].freeze # sent_us, sleep_s, pad: about 100 bytes as JSON
  EXPECTED = ENV["EXPECTED"].to_i
  COUNTING = Mutex.new
  WAITS_US = []

  class << self
    attr_accessor :first_us, :done
  end
  self.done = 0

  def perform(sent_us, sleep_s, _pad)
    now_us = clock_us
    Noop.first_us ||= now_us
    WAITS_US << now_us - sent_us if sent_us > 0
    if sleep_s > 0
      puts "asleep"
      sleep sleep_s
    end
    last = COUNTING.synchronize { Noop.done += 1 } == EXPECTED
    puts JSON.generate(first_us: Noop.first_us, waits_us: WAITS_US) if last
  end
end

def work(concurrency, expected)
  ENV["EXPECTED"] = expected
  exec "sidekiq", "--require", __FILE__, "--concurrency", concurrency, "--environment", "production"
end

def bulk(jobs)
  # Its guide: 1,000 at a time.
  jobs.times.each_slice(1000) { |slice| Noop.perform_bulk(slice.map { Noop::ARGS }) }
end

def singles(jobs)
  clients = 50.times.map do |first|
    Thread.new { first.step(jobs - 1, 50) { Noop.perform_async(*Noop::ARGS) } }
  end
  clients.each(&:join)
end

def trickle(jobs)
  began_us = clock_us
  jobs.times do |job|
    wait_us = began_us + job * 10_000 - clock_us
    sleep wait_us / 1e6 if wait_us > 0
    Noop.perform_async(clock_us, *Noop::ARGS.drop(1))
  end
end

def sleepers(jobs)
  jobs.times { Noop.perform_async(0, 30, "") }
end

if Sidekiq.server?
  Sidekiq.configure_server do |config|
    config.redis = DRIVER
    config.on(:startup) { puts "ready" }
  end
else
  verb, count, expected = ARGV
  work(count, expected) if verb == "work"
  # Its guide: a connection for each thread that enqueues.
  Sidekiq.configure_client { |config| config.redis = { size: 50, **DRIVER } }
  Sidekiq.redis(&:ping)
  began_us = clock_us
  send(verb, count.to_i)
  puts JSON.generate(seconds: (clock_us - began_us) / 1e6)
end
