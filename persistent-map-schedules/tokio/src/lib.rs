//! What `persistent-map-core` uses of tokio. Tasks and timers are the scheduler's; channels are tokio's own, which know no
//! runtime.

#![forbid(unsafe_code)]

pub use real::sync;

pub mod runtime {
    use shuttle::future::JoinHandle;

    #[derive(Clone)]
    pub struct Handle;

    #[derive(Debug)]
    pub struct TryCurrentError;

    impl Handle {
        pub fn try_current() -> Result<Self, TryCurrentError> {
            Ok(Handle)
        }

        pub fn spawn<T: Send + 'static>(
            &self,
            task: impl Future<Output = T> + Send + 'static,
        ) -> JoinHandle<T> {
            shuttle::future::spawn(task)
        }

        pub fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
            shuttle::future::block_on(call)
        }
    }
}

pub mod task {
    pub mod coop {
        pub async fn consume_budget() {
            shuttle::future::yield_now().await;
        }
    }
}

pub mod time {
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use shuttle::rand::Rng;
    pub use std::time::Instant;

    #[derive(Debug)]
    pub struct Elapsed;

    pub async fn sleep(_: Duration) {
        shuttle::future::yield_now().await;
    }

    /// There is no clock: what does not answer at once may time out at any moment.
    pub async fn timeout_at<T>(_: Instant, call: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            if let Poll::Ready(answer) = call.as_mut().poll(context) {
                return Poll::Ready(Ok(answer));
            }
            if shuttle::rand::thread_rng().gen_bool(0.25) {
                return Poll::Ready(Err(Elapsed));
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }
}
