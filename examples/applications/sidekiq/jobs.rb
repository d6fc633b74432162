# Sidekiq: jobs in any number of processes. The settings of memstore's pool:
#
#     transactions: per-shard
#     pin: {"queue:": shard-1}
#
# The second is for processes of several queues, which wait for all of them at once.
#
# apt-get install ruby-sidekiq, then REDIS_URL=redis://... sidekiq -r ./jobs.rb -q mails -q images
require 'sidekiq'

class Square
  include Sidekiq::Job

  def perform(number)
    Sidekiq.redis do |store|
      store.call('INCR', "#{number}:executed")
      store.call('LPUSH', 'squares', number * number)
    end
  end
end
