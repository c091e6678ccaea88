//! Who may write to shared storage: gate, register, administrator, director.
