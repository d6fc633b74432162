# Two processes of Sidekiq execute the jobs of a client, each once.
require_relative 'jobs'
require 'sidekiq/api'
require 'sidekiq/scheduled'

WAIT = 60
JOBS = 60

def check(what, got, expected)
  raise "#{what}: #{got.inspect} instead of #{expected.inspect}" unless got == expected
end

def with_processes(count, *options)
  processes = Array.new(count) { Process.spawn('sidekiq', '-r', "#{__dir__}/jobs.rb", '-c', '4', *options, in: :close) }
  deadline = Time.now + WAIT
  # One that has not told of itself yet could not be asked to end.
  raise 'they do not start' if Time.now > deadline while Sidekiq::ProcessSet.new.size < count
  yield
ensure
  processes.each { |each| Process.kill('TERM', each) }
  processes.each do |each|
    Process.wait(each)
    check('they end as they should', $?.exitstatus, 0)
  end
end

def executed(numbers)
  Sidekiq.redis { |store| store.call('MGET', *numbers.map { |number| "#{number}:executed" }) }
end

def squares(count)
  found, deadline = [], Time.now + WAIT
  while found.size < count && Time.now < deadline
    # Shorter than the library waits for a reply.
    found << Sidekiq.redis { |store| store.call('BRPOP', 'squares', 1) }&.last&.to_i
    found.compact!
  end
  found
end

with_processes(2) do
  (0...JOBS / 2).each { |number| Square.perform_async(number) }
  Square.perform_bulk((JOBS / 2...JOBS).map { |number| [number] })
  check('results', squares(JOBS).sort, (0...JOBS).map { |number| number * number })
  check('each job is executed once', executed(0...JOBS), ['1'] * JOBS)
  check('nothing is left', Sidekiq::Queue.new.size, 0)
end

with_processes(1, '-q', 'mails', '-q', 'images') do
  (JOBS...JOBS + 20).each { |number| Square.set(queue: number.even? ? 'mails' : 'images').perform_async(number) }
  check('results of several queues', squares(20).sort, (JOBS...JOBS + 20).map { |number| number * number })
  check('each job is executed once', executed(JOBS...JOBS + 20), ['1'] * 20)
end

later = (JOBS + 20...JOBS + 30).to_a
later.each { |number| Square.perform_in(0.001, number) }
Sidekiq::Scheduled::Enq.new(*([Sidekiq.default_configuration] if Sidekiq.respond_to?(:default_configuration))).enqueue_jobs
with_processes(2) do
  check('results of scheduled jobs', squares(10).sort, later.map { |number| number * number })
  check('each job is executed once', executed(later), ['1'] * 10)
end
